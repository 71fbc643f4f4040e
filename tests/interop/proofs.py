"""Checks a log with sigstore's own classes, and its leaves with rfc8785.

Usage: proofs.py DIR VKEY PROOFS. PROOFS holds one JSON string a line: a C2SP tlog-proof of each entry, in order.
Prints one line of JSON. Fails if anything does not fit.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore._internal.rekor.checkpoint import SignedCheckpoint, verify_checkpoint
from sigstore._internal.trust import Keyring
from sigstore.errors import VerificationError
from sigstore.models import TransparencyLogEntry
from sigstore_models.common.v1 import LogId, PublicKey, PublicKeyDetails
from sigstore_models.rekor import v1 as rekor


def encoded(content: bytes) -> bytes:
    return base64.b64encode(content)


def entries(directory: Path, size: int):
    """The entries of the bundles, in order."""
    for first in range(0, size, 256):
        width = min(256, size - first)
        number = first // 256
        name = f"{number % 1000:03}"
        while number := number // 1000:
            name = f"x{number % 1000:03}/{name}"
        path = directory / "tile" / "entries" / (name if width == 256 else f"{name}.p/{width}")
        bundle = path.read_bytes()
        for _ in range(width):
            length = int.from_bytes(bundle[:2], "big")
            yield bundle[2 : 2 + length]
            bundle = bundle[2 + length :]
        assert not bundle, f"bytes after the bundle {path}"


def parsed(proof: str):
    """Index, path and checkpoint of a tlog-proof."""
    head, checkpoint = proof.split("\n\n", 1)
    version, index, *path = head.split("\n")
    assert version == "c2sp.org/tlog-proof@v1", version
    return int(index.removeprefix("index ")), [base64.b64decode(line) for line in path], checkpoint


def entry(leaf: bytes, index: int, path: list, checkpoint: str, log_id: bytes) -> TransparencyLogEntry:
    signed = SignedCheckpoint.from_text(checkpoint).checkpoint
    inclusion = rekor.InclusionProof(
        log_index=str(index),
        root_hash=encoded(bytes.fromhex(signed.log_hash)),
        tree_size=str(signed.log_size),
        hashes=[encoded(hash_) for hash_ in path],
        checkpoint=rekor.Checkpoint(envelope=checkpoint),
    )
    return TransparencyLogEntry(
        rekor.TransparencyLogEntry(
            log_index=str(index),
            log_id=LogId(key_id=encoded(log_id)),
            kind_version=rekor.KindVersion(kind="interlock-receipt", version="1"),
            inclusion_proof=inclusion,
            canonicalized_body=encoded(leaf),
        )
    )


def refused(check) -> int:
    try:
        check()
    except VerificationError:
        return 1
    raise AssertionError("accepted what is wrong")


def main() -> None:
    directory, vkey, proofs = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    name, _, typed = vkey.split("+", 2)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(typed)[1:])
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    keyring = Keyring([PublicKey(raw_bytes=encoded(der), key_details=PublicKeyDetails.PKIX_ED25519)])
    # sigstore finds the line of the note by the first four bytes of the log's id, as signed notes do.
    log_id = hashlib.sha256(f"{name}\n".encode() + base64.b64decode(typed)).digest()

    checkpoint = (directory / "checkpoint").read_text()
    signed = SignedCheckpoint.from_text(checkpoint)
    assert signed.checkpoint.origin == name and not signed.checkpoint.other_content
    signed.signed_note.verify(keyring, log_id)

    leaves = list(entries(directory, signed.checkpoint.log_size))
    lines = proofs.read_text().splitlines()
    assert len(lines) == len(leaves), (len(lines), len(leaves))
    wrong = 0
    for at, (leaf, line) in enumerate(zip(leaves, lines)):
        assert rfc8785.dumps(json.loads(leaf)) == leaf, f"entry {at} is not canonical: {leaf!r}"
        index, path, note = parsed(json.loads(line))
        assert (index, note) == (at, checkpoint)
        found = entry(leaf, index, path, note, log_id)
        verify_merkle_inclusion(found)
        if at % 100 == 0:
            verify_checkpoint(keyring, found)
            changed = entry(leaf + b" ", index, path, note, log_id)
            wrong += refused(lambda: verify_merkle_inclusion(changed))
            other = note.replace(f"\n{len(leaves)}\n", f"\n{len(leaves) + 1}\n")
            forged = entry(leaf, index, path, other, log_id)
            wrong += refused(lambda: verify_checkpoint(keyring, forged))
    parsed_leaves = [json.loads(leaf) for leaf in leaves]
    types = sorted({leaf["type"] for leaf in parsed_leaves})
    # Members that only some decisions have.
    decisions = [leaf for leaf in parsed_leaves if leaf["type"] == "decision"]
    members = set().union(*(decision.keys() | decision["request"].keys() for decision in decisions))
    forms = sorted(members & {"_sd", "claim", "hold"})
    signatures = len(signed.signed_note.signatures)
    found = {"size": len(leaves), "refused": wrong, "signatures": signatures, "types": types, "forms": forms}
    print(json.dumps(found))


main()
