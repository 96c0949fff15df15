"""Encryption and signatures of checkpoints."""

from pathlib import Path

from gptdist.config.section import Section


class ProtectionConfig(Section):
    """Who can read a run's checkpoints, and whose checkpoints the run goes on from; nothing is protected unless asked.

    The encryption key is 64 hexadecimal digits, in the environment variable ``GPTDIST_CHECKPOINT_KEY`` or in a file.
    Signatures are Ed25519; keys are PEM files. No key is ever part of the config.
    """

    encrypt: bool = False
    """Encrypt weights and moments with AES-256-GCM; what the manifest says of them can still be read."""

    key_path: str | None = None
    """File that holds the encryption key; the environment comes before it."""

    signing_key_path: str | None = None
    """Private key that signs each checkpoint."""

    trusted_key_path: str | None = None
    """Public key: a checkpoint that was not signed with its private key counts as damaged."""

    def path_problems(self) -> list[str]:
        """Return every key's file that is not there; looks at the disk. The encryption key may be elsewhere."""
        return [
            f"checkpoints.protection.{name}: {path} is no file; make a key with openssl (see docs/checkpoints.md)"
            for name, path in (
                ("signing_key_path", self.signing_key_path),
                ("trusted_key_path", self.trusted_key_path),
            )
            if path is not None and not Path(path).is_file()
        ]

    def problems(self) -> list[str]:
        """Return every value that has no meaning."""
        if self.key_path is not None and not self.encrypt:
            return ["checkpoints.protection.key_path: belongs to encrypt true; set that, or remove it"]
        if self.signing_key_path is not None and self.trusted_key_path is None:
            return [
                "checkpoints.protection.signing_key_path: needs trusted_key_path, or the run would sign, and go on "
                "from what nobody signed; name the public key too"
            ]
        return []
