"""``gptdist rate A B --prompts FILE`` and ``gptdist rate report FILE``: blind ratings by people."""

import argparse
from pathlib import Path

from gptdist.cli.answer import add_json, print_json
from gptdist.cli.quiet import hidden_libraries
from gptdist.compress.sampling import SamplingOptions
from gptdist.errors import ConfigError

REPORT = "report"
DEFAULT_RESULTS = Path("ratings.sqlite")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; the first word ``report`` makes it a report."""
    parser.add_argument(
        "what", nargs=2, metavar="A B | report FILE",
        help="two models (run, step folder or Hugging Face folder), or the word report and a results file",
    )  # fmt: skip
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="a prompt a line, or .jsonl with the key prompt")
    parser.add_argument(
        "--results", type=Path, default=DEFAULT_RESULTS, metavar="FILE",
        help="texts and votes; made if it is not there (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=96, metavar="N", help="of a text (default: 96)")
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T", help="of the texts (default: 0.8)")
    parser.add_argument("--seed", type=int, default=1234, help="of texts and sides (default: 1234)")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.what[0] == REPORT:
        _report(Path(arguments.what[1]), as_json=arguments.json)
    else:
        _serve(arguments)


def _report(path: Path, *, as_json: bool) -> None:
    from gptdist.compress.rate.report import pair_agreements, report, report_lines
    from gptdist.compress.rate.store import Store

    if not path.is_file():
        raise ConfigError([f"{path}: does not exist; name the file that --results made"])
    store = Store(path)
    found = report(store)
    if as_json:
        pairs = [one.tree() for one in found]
        print_json({"pairs": pairs, "kappa_of_raters": pair_agreements(store)})
    else:
        print("\n".join(report_lines(found)))


@hidden_libraries()
def _serve(arguments: argparse.Namespace) -> None:
    from gptdist.compress.rate.pairs import make_pairs
    from gptdist.compress.rate.server import Ratings, make_server
    from gptdist.compress.rate.store import Store

    options = SamplingOptions(
        max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature, seed=arguments.seed
    )
    _check(arguments, options)
    from gptdist.compress.rate.texts import continuations, model_id, read_prompts

    prompts = read_prompts(arguments.prompts)
    models = {model_id(path): path for path in map(Path, arguments.what)}
    if len(models) < 2:
        raise ConfigError([f"{arguments.what[1]}: is the same model as {arguments.what[0]}; name another"])
    store = Store(arguments.results)
    store.name_models([(model, str(path)) for model, path in models.items()])
    texts = {model: continuations(path, model, prompts, options, store) for model, path in models.items()}
    server = make_server(
        Ratings(make_pairs(prompts, texts), store, seed=arguments.seed), arguments.host, arguments.port
    )
    host, port = server.server_address[:2]
    print(f"{len(prompts)} prompts; rate at http://{host!s}:{port}/ and stop with Ctrl-C", flush=True)
    with server:
        server.serve_forever()


def _check(arguments: argparse.Namespace, options: SamplingOptions) -> None:
    bad = options.problems()
    bad += [
        f"{path}: does not exist; name a run, a checkpoint or a Hugging Face folder"
        for path in arguments.what
        if not Path(path).exists()
    ]
    if arguments.prompts is None:
        bad.append("--prompts: is not given; name a file with a prompt a line")
    if not 0 <= arguments.port < 65536:
        bad.append(f"--port: must be from 0 to 65535, got {arguments.port}")
    if not arguments.results.parent.is_dir():
        bad.append(f"--results: folder '{arguments.results.parent}' does not exist; make it, or name another")
    if bad:
        raise ConfigError(bad)
