"""Pages of the site that are made from cards and records, so that a new one has its page."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from spfem_bench.errors import CardError
from spfem_bench.reporting import leaderboard, pages


def on_config(config: MkDocsConfig) -> None:
    """Put the pages made here into the navigation."""
    sections = {title: items for section in config.nav for title, items in section.items()}
    sections["Protocols"] += ["cards.md", *(f"protocols/{name}.md" for name in pages.protocols())]
    config.nav.append({"Registry": [f"registry/{name}.md" for name in pages.registry()]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages made here, and the leaderboard of the records in the repository."""
    made = {f"protocols/{name}.md": text for name, text in pages.protocols().items()}
    made |= {f"registry/{name}.md": text for name, text in pages.registry().items()}
    made["cards.md"] = pages.cards()
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    try:
        ranked = leaderboard.submitted()
    except CardError as error:
        raise PluginError(str(error)) from None
    for path, content in ranked.items():
        files.append(File.generated(config, f"leaderboard/{path}", content=content))
