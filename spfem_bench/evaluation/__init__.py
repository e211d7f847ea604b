"""Plan, features, components, scores; and the record of it all."""
