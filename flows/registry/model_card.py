"""A model's card on MLflow's page of it."""

from collections.abc import Sequence
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cl.names import in_markdown
from cl.reports.tables import line
from flows.registry.changes import noted
from flows.tracking.notes import describe_model, first_line
from flows.tracking.views import version_page

_VERSIONS, _CHANGES, _WHY = 12, 8, 160  # that it lists, and characters of a reason


def describe(client: MlflowClient, name: str, versions: Sequence[ModelVersion]) -> None:
    """Let a model's page open with what it is, who is champion and why, how it is asked, its versions and what became of it."""
    aliases: dict[str, str] = client.get_registered_model(name).aliases
    changes = [made for _, made in noted(client, name) if made.state == "done"][::-1]
    lines = ["A CLIP that goes on learning, kept by Evergreen.", ""]
    for alias, version in sorted(aliases.items(), key=lambda each: (each[0] != "champion", each[0])):
        last = next((made for made in changes if made.alias == alias and made.after == str(version)), None)
        since = f", since {_day(last.when)}, by {in_markdown(last.who)}: {_brief(last.why)}" if last else ""
        lines.append(f"- **{in_markdown(alias)}**: version {version}{since}")
    lines += ["", "```sh", f"evergreen predict IMAGE --model {name}", f"evergreen history {name}", "```", ""]
    lines += [line(["version", "scores"]), line(["---", "---"])]
    for each in sorted(versions, key=lambda each: -int(each.version))[:_VERSIONS]:
        told = first_line(each.description) or "–"
        lines.append(f"| [{each.version}]({version_page(name, str(each.version))})&emsp; | {told} |")
    lines += ["", "What became of it, the last first:", ""]
    lines += [
        f"- {_day(made.when)}, {in_markdown(made.alias)}: version {made.after}, by {in_markdown(made.who)}: {_brief(made.why)}"
        for made in changes[:_CHANGES]
    ]
    describe_model(client, name, "\n".join(lines))


def _brief(why: str) -> str:
    return in_markdown(why if len(why) <= _WHY else f"{why[: _WHY - 1]}…")


def _day(when: str) -> str:
    return f"{datetime.fromisoformat(when).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
