"""A certificate authority for a test, and certificates that it signed."""

import ssl
import subprocess
from pathlib import Path


class CertificateAuthority:
    """Signs for 127.0.0.1, in its own folder: `certificate` is its certificate, `sign` creates a pair of files."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self.certificate, self._key = folder / f"{name}.crt", folder / f"{name}.key"
        _openssl(
            "req",
            "-x509",
            *_new_key_arguments(self._key),
            "-out",
            self.certificate,
            "-days",
            "1",
            "-subj",
            f"/CN={name}",
        )

    def sign(self, name: str) -> tuple[Path, Path]:
        """Return a certificate for this machine, and its key."""
        certificate, key, request = (self._folder / f"{name}.{end}" for end in ("crt", "key", "csr"))
        names = self._folder / f"{name}.names"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n", encoding="ascii")
        _openssl("req", *_new_key_arguments(key), "-out", request, "-subj", f"/CN={name}")
        signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *signer, "-out", certificate, "-days", "1", "-extfile", names)
        return certificate, key

    def server_context(self) -> ssl.SSLContext:
        """Return the context of a server that requires a client certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.sign("server"))
        context.load_verify_locations(self.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def _new_key_arguments(key: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key)


def _openssl(*arguments: str | Path) -> None:
    result = subprocess.run(["openssl", *arguments], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode(errors="replace")
