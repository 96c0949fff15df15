"""Which documents a sample of a run is made of, and where they came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gptdist.config.run import RunConfig
from gptdist.data.dataset import TokenDataset
from gptdist.data.order import SampleAddress
from gptdist.data.provenance import DocumentSpan, Provenance, read_provenance
from gptdist.data.sources import TrainingData
from gptdist.errors import ConfigError, DataError


@dataclass(frozen=True)
class TracedDocument:
    """The part of a sample that one document is."""

    path: str
    record: int
    offset: int | None
    """Byte at which the record begins in the file; none for a whole file."""

    url: str | None
    language: str | None
    text_digest: str
    piece: int
    """Which piece of the document it is from, where best-fit packing cut that; else 0."""

    shard: str
    document: int
    """Number of the document, or of the piece, in the shard."""

    begin: int
    """Place of its first token in the sample."""

    document_token: int
    """Which token of the document, or of the piece, that is, from 0."""

    tokens: int
    """Tokens of it in the sample."""

    document_tokens: int
    """Tokens of the whole document or piece, end-of-document and padding behind it included."""

    learnt_tokens: int | None = None
    """Tokens of it in the sample that count as labels by the data's own mask; None where it has none."""


@dataclass(frozen=True)
class TracedSample:
    """One sample: ``seq_length`` inputs, and one token more that only the last of them is to predict."""

    sample: int
    source: str
    epoch: int
    first_token: int
    """Place in the token stream of the source's training split."""

    tokens: int
    documents: tuple[TracedDocument, ...]


def open_traced_data(config: RunConfig, fingerprints: Mapping[str, str]) -> TrainingData:
    """Open the training data of a run, as it was when the run read it.

    Args:
        config: of the attempt.
        fingerprints: content of each source as the attempt recorded it, by name.

    Raises:
        ConfigError: folders that are not there.
        DataError: a dataset is damaged, or holds something else by now.
    """
    missing = config.data.source_problems("run this from the folder the training was started in, or put the data back")
    if missing:
        raise ConfigError(missing)
    data = TrainingData(config)
    for source, (name, found) in zip(config.data.sources, data.fingerprints().items(), strict=True):
        if fingerprints.get(name) != found:
            raise DataError(
                f"{source.path}: its content is {found[:12]}, the run read {fingerprints.get(name, 'nothing')[:12]} "
                f"under this name; put the data back that the run was trained on"
            )
    return data


def trace_samples(data: TrainingData, samples: Sequence[int]) -> list[TracedSample]:
    """Return the documents of ``samples``, in their order; reads no tokens but where these have a mask.

    Raises:
        DataError: a provenance file is missing or damaged.
    """
    addresses = [data.order.address(sample) for sample in samples]
    spans = [data.documents_of(address) for address in addresses]
    origins = _origins(data.datasets, addresses, spans)
    return [
        TracedSample(
            sample=sample,
            source=data.order.names[address.source],
            epoch=address.epoch,
            first_token=address.first_token,
            tokens=data.row_tokens,
            documents=tuple(
                _part(data.datasets[address.source], address.first_token, data.row_tokens, span=span, origin=origin)
                for span in found
                for origin in (origins[address.source, span],)
            ),
        )
        for sample, address, found in zip(samples, addresses, spans, strict=True)
    ]


def _origins(
    datasets: Sequence[TokenDataset], addresses: Sequence[SampleAddress], spans: Sequence[Sequence[DocumentSpan]]
) -> dict[tuple[int, DocumentSpan], Provenance]:
    """Read the provenance of all documents, every row group once."""
    wanted: dict[int, dict[DocumentSpan, None]] = {}
    for address, found in zip(addresses, spans, strict=True):
        wanted.setdefault(address.source, {}).update(dict.fromkeys(found))
    return {
        (source, span): origin
        for source, some in wanted.items()
        for span, origin in zip(some, read_provenance(datasets[source].folder, list(some)), strict=True)
    }


def _part(dataset: TokenDataset, start: int, count: int, *, span: DocumentSpan, origin: Provenance) -> TracedDocument:
    first = max(start, span.first_token)
    tokens = min(start + count, span.last_token + 1) - first
    return TracedDocument(
        path=origin.path,
        record=origin.record,
        offset=origin.offset,
        url=origin.url,
        language=origin.language,
        text_digest=origin.text_digest,
        piece=origin.piece,
        shard=span.shard,
        document=span.document,
        begin=first - start,
        document_token=first - span.first_token,
        tokens=tokens,
        document_tokens=span.last_token + 1 - span.first_token,
        learnt_tokens=int((dataset.read_sample(first, tokens) >= 0).sum()) if dataset.has_masks else None,
    )
