"""Near-duplicates over the whole corpus: signatures, meetings in bands, clusters. Of each cluster the first is kept.

Memory: a task of signatures holds 700 bytes a document of its group, of at most 131,072 documents or one input shard;
a task of edges 12 bytes a key of its range (52 MB at 32 bands) and the sketches of some of the documents that meet
(50 MB at 128 values), more only where more than 131,072 documents of different signatures have one key in common; the
one task of clusters 18 bytes a document (22 above 2 ** 32 documents) and 60 a document of a cluster, whatever the
number of edges.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.dedup.clusters import Clusters, cluster_summary
from data_prep.dedup.cutting import text_bytes
from data_prep.dedup.keepers import settle
from data_prep.dedup.minhash import VERSION, Signatures, least_equal, signatures_of, similarity_of
from data_prep.dedup.pairs import alike
from data_prep.dedup.records import Array, document_ids, num_ranges, shard_and_row, write_records
from data_prep.dedup.removals import REMOVED_NAME, num_documents, removals_of, surviving_but_for
from data_prep.dedup.signature_files import SignatureFiles, SignatureWriter, shard_groups
from data_prep.dedup.signed_corpus import SignedCorpus
from data_prep.document import Place
from data_prep.work import Work
from gptdist.config.prep_dedup import NearDedupSection

_DOCUMENTS_AT_ONCE = 1 << 17
_EDGES_NAME = "edges.bin"
_AT_ONCE = 1 << 20


@dataclass
class NearSignatures:
    """Sign the documents that are left, a group of input shards a task."""

    documents_per_group: int = _DOCUMENTS_AT_ONCE
    name: str = "near_signatures"

    def num_tasks(self, work: Work) -> int:
        """Return the number of groups."""
        return len(self._groups(work))

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write the signatures of a group."""
        near = _section(work)
        group = self._groups(work)[place.rank]
        signed = short = 0
        with SignatureWriter(folder, near) as writer:
            for shard in group:
                removals = removals_of(work, shard, ("exact", "lines"))
                for batch in surviving_but_for(work, shard, ("text",), removals):
                    rows = batch.column("row").to_numpy()
                    signatures = _signatures(batch, near)
                    enough = signatures.letters >= near.min_letters
                    chosen = Signatures(
                        signatures.keys[:, enough], signatures.sketches[enough], signatures.letters[enough]
                    )
                    writer.append(document_ids(shard, rows[enough]), chosen)
                    signed += int(enough.sum())
                    short += int(len(rows) - enough.sum())
        return {"tasks": place.world_size, "version": VERSION, "documents": signed, "too_short": short}

    def _groups(self, work: Work) -> list[range]:
        counts = [num_documents(work, shard) for shard in range(work.num_shards)]
        return shard_groups(counts, self.documents_per_group)


@dataclass
class NearEdges:
    """Find the pairs that are alike among documents with a common key, a range of the keys of all bands a task."""

    documents_per_range: int = _DOCUMENTS_AT_ONCE
    name: str = "near_edges"

    def num_tasks(self, work: Work) -> int:
        """Return the number of ranges."""
        return num_ranges(_corpus(work).count, self.documents_per_range)

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write the pairs of a range, numbered by place in the signed corpus."""
        near, corpus = _section(work), _corpus(work)
        threshold = least_equal(near.min_similarity, near.bands * near.rows)
        candidates = edges = 0
        with (folder / _EDGES_NAME).open("wb") as file:
            for begins, members in corpus.meetings(place.rank, place.world_size):
                different, rows = np.unique(members, return_inverse=True)
                later, earlier = alike(begins, rows, corpus.sketches(different), threshold)
                np.stack([different[later], different[earlier]], axis=1).tofile(file)
                candidates += len(members) - (len(begins) - 1)
                edges += len(later)
        return {"tasks": place.world_size, "candidates": candidates, "edges": edges}


@dataclass
class NearClusters:
    """Join what is alike into clusters, and list what goes of each."""

    name: str = "near_clusters"

    def num_tasks(self, work: Work) -> int:
        """Return 1."""
        return 1

    def run(self, work: Work, place: Place, folder: Path) -> Mapping[str, Any]:
        """Write the removals; the marker holds the sizes of what was alike, kept document included."""
        near, corpus = _section(work), _corpus(work)
        firsts = self._clusters(work, corpus)
        num_clusters = cluster_summary(firsts)["clusters"]
        values = near.bands * near.rows
        shared = settle(firsts, corpus, least_equal(near.min_keeper_similarity, values))
        summary = cluster_summary(firsts)
        ids = corpus.ids()
        per_document = ids.itemsize + firsts.itemsize + shared.itemsize + 4
        _write_removed(folder / REMOVED_NAME, firsts, ids, shared, values)
        for cluster in summary["largest"]:
            cluster["members"] = [shard_and_row(int(ids[member])) for member in cluster["members"]]
        counts = {"documents": len(ids), "chains": num_clusters, "bytes_a_document": per_document}
        return {"tasks": place.world_size, **counts, **summary}

    def _clusters(self, work: Work, corpus: SignedCorpus) -> Array:
        """The first document of each document's connected component."""
        clusters = Clusters(corpus.count)
        for later, earlier in corpus.same():
            clusters.join(later, earlier)
        for task in range(work.marker("near_edges", 0)["tasks"]):
            for later, earlier in _edges(work.task_folder("near_edges", task) / _EDGES_NAME):
                clusters.join(later, earlier)
        return clusters.firsts()


def _section(work: Work) -> NearDedupSection:
    near = work.config.dedup.near
    assert near is not None, "near-dedup steps run only where the config has the section"
    return near


def _signatures(batch: Any, near: NearDedupSection) -> Signatures:
    offsets, data = text_bytes(batch.column("text"))
    return signatures_of(offsets, data, bands=near.bands, rows=near.rows, shingle_letters=near.shingle_letters)


def _corpus(work: Work) -> SignedCorpus:
    step, near = "near_signatures", _section(work)
    tasks = range(work.marker(step, 0)["tasks"])
    return SignedCorpus([SignatureFiles(work.task_folder(step, task), near) for task in tasks])


def _edges(path: Path) -> Iterator[tuple[Array, Array]]:
    with path.open("rb") as file:
        while len(pairs := np.fromfile(file, dtype=np.int64, count=2 * _AT_ONCE)):
            yield pairs[0::2], pairs[1::2]


def _write_removed(path: Path, firsts: Array, ids: Array, shared: Array, values: int) -> None:
    """Write the documents that go, the ones kept for them, and their similarity."""
    gone = np.flatnonzero(firsts != np.arange(len(firsts), dtype=firsts.dtype))
    write_records(path, (ids[gone], ids[firsts[gone]], similarity_of(shared[gone], values)))
