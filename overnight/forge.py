"""Pull requests at GitHub and merge requests at GitLab, theirs or one's own: found or opened, over their REST API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import httpx

from overnight.printable import one_line
from overnight.push import Login, Refused

Kind = Literal["github", "gitlab"]
PUBLIC: Mapping[Kind, str] = {"github": "https://api.github.com", "gitlab": "https://gitlab.com/api/v4"}
_TIMEOUT = httpx.Timeout(30.0)
_BEGIN, _END = "<!-- overnight: from here -->", "<!-- overnight: to here -->"
_OURS = re.compile(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", re.DOTALL)
_MENDS = {
    401: "the token is not let in: save the block {block} again with a new one",
    403: "the token may not do that: it needs to read and write pull requests of {project}",
    404: "see that {project} is right (deliver.project), and that the token may see it",
    422: "read its words; deliver.base must be a branch of {project}",
    429: "wait a while",
}


@dataclass(frozen=True)
class Forge:
    """Where pull requests are made, and with what. `block` is what messages call it."""

    block: str
    kind: Kind
    api_url: str
    token: str

    @property
    def login(self) -> Login:
        """The token as git shows it, to the host of the pages."""
        host = urlsplit(self.api_url).netloc.removeprefix("api.")
        return Login(host, "x-access-token" if self.kind == "github" else "oauth2", self.token)


@dataclass(frozen=True)
class Offer:
    """A pull request as it should be. `base` None means the project's default branch."""

    project: str
    branch: str
    base: str | None
    title: str
    body: str
    draft: bool = False


def project_of(url: str) -> str | None:
    """`owner/name` of a remote's URL; None when it has none."""
    path = urlsplit(url).path if "://" in url else url.partition(":")[2]
    found = re.fullmatch(r"/?((?:[\w.-]+/)+[\w.-]+?)(?:\.git)?/?", path)
    return found[1] if found and not url.startswith("file:") else None


def request(forge: Forge, offer: Offer) -> str:
    """Open a pull request for a branch, or bring the one that is there up to date; its page. Blocks, up to 2 minutes.

    Only what stands between our own marks in its text is replaced, and its
    title is left as it is: both may have been edited.

    Raises:
        Refused: with why, and the mend. `went_on`: it was closed or merged, and stays so.
    """
    headers = {"Authorization": f"Bearer {forge.token}", "Accept": "application/vnd.github+json"}
    if forge.kind == "gitlab":
        headers = {"PRIVATE-TOKEN": forge.token}
    # never a redirect: it would show the token to another host
    with httpx.Client(base_url=forge.api_url, headers=headers, timeout=_TIMEOUT, follow_redirects=False) as client:
        of_kind = {"github": _github, "gitlab": _gitlab}[forge.kind]
        try:
            return of_kind(_Calls(client, forge, offer.project), offer)
        except (KeyError, TypeError, IndexError) as error:
            problem = f"{forge.api_url} answers otherwise than {forge.kind} does: {type(error).__name__}: {error}"
            mend = f"see kind and api_url in forge-credentials/{forge.block}"
            raise Refused(one_line(problem.replace(forge.token, "***"))[:500], mend) from None


@dataclass(frozen=True)
class _Calls:
    client: httpx.Client
    forge: Forge
    project: str

    def __call__(self, method: str, path: str, **data: Any) -> Any:
        """The answer's JSON.

        Raises:
            Refused: no answer, or one that is no success.
        """
        how = {"params": data} if method == "GET" else {"json": data}
        try:
            answer = self.client.request(method, path, **how)  # type: ignore[arg-type]  # one of the two
        except httpx.HTTPError as error:
            words = f"{method} {path}: {type(error).__name__}: {error}"
            raise self._refused(words, "see that this machine reaches {block}'s api_url") from None
        if not answer.is_success:
            mend = _MENDS.get(answer.status_code, "see the forge's own pages")
            raise self._refused(f"{method} {path}: {answer.status_code}{_said(answer)}", mend)
        try:
            return answer.json()
        except ValueError:
            seen = f"{method} {path}: {answer.status_code}, and no JSON"
            raise self._refused(seen, "see api_url in {block}: it must be that of the API") from None

    def _refused(self, problem: str, mend: str) -> Refused:
        hidden = one_line(problem.replace(self.forge.token, "***"))[:500]
        return Refused(hidden, mend.format(block=f"forge-credentials/{self.forge.block}", project=self.project))


def _said(answer: httpx.Response) -> str:
    """Their own words, as far as they have the usual shape."""
    try:
        body = answer.json()
    except ValueError:
        return ""
    words = (
        [str(body[name]) for name in ("message", "error", "errors") if body.get(name)] if isinstance(body, dict) else []
    )
    return f": {'; '.join(words)}" if words else ""


def _github(call: _Calls, offer: Offer) -> str:
    where = f"repos/{offer.project}"
    owner = offer.project.split("/")[0]
    found = call("GET", f"{where}/pulls", head=f"{owner}:{offer.branch}", state="all")
    for known in _open_first(found, "open"):
        _still_open(known["state"] == "open", known["html_url"])
        call("PATCH", f"{where}/pulls/{known['number']}", body=_renewed(known.get("body"), offer.body))
        return str(known["html_url"])
    base = offer.base or call("GET", where)["default_branch"]
    text = {"title": offer.title, "body": _marked(offer.body)}
    made = call("POST", f"{where}/pulls", head=offer.branch, base=base, draft=offer.draft, **text)
    return str(made["html_url"])


def _gitlab(call: _Calls, offer: Offer) -> str:
    where = f"projects/{quote(offer.project, safe='')}"
    found = call("GET", f"{where}/merge_requests", source_branch=offer.branch, state="all")
    for known in _open_first(found, "opened"):
        _still_open(known["state"] == "opened", known["web_url"])
        call(
            "PUT", f"{where}/merge_requests/{known['iid']}", description=_renewed(known.get("description"), offer.body)
        )
        return str(known["web_url"])
    base = offer.base or call("GET", where)["default_branch"]
    text = {"title": f"{'Draft: ' if offer.draft else ''}{offer.title}", "description": _marked(offer.body)}
    made = call("POST", f"{where}/merge_requests", source_branch=offer.branch, target_branch=base, **text)
    return str(made["web_url"])


def _open_first(found: list[dict[str, Any]], is_open: str) -> list[dict[str, Any]]:
    return sorted(found, key=lambda each: each["state"] != is_open)


def _still_open(is_open: bool, page: str) -> None:
    if not is_open:
        raise Refused(f"somebody closed or merged {page}", "open it again there, if that was not meant", went_on=True)


def _marked(body: str) -> str:
    return f"{_BEGIN}\n{body}\n{_END}"


def _renewed(known: str | None, body: str) -> str:
    """The text with our part of it anew; as it was where somebody took our part away."""
    return _OURS.sub(lambda _: _marked(body), known or "")
