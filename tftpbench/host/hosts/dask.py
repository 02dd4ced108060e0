"""The carrier of calls over Dask, and the certificates of its cluster.

Dask distributed carries short calls and no tasks. `Client.run` goes from the scheduler straight to a worker and is done
once: no retry, no result that is kept, nothing that another worker takes over. It must never submit a task. Dask is
imported when a carrier is made, so that no other command waits for it.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import re
import resource
import secrets
import shutil
import socket
import threading
import warnings
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import SplitResult, urlsplit

from tftpbench.model.errors import HostsError, UsageError
from tftpbench.model.escape import one_line
from tftpbench.model.values import HOSTS_MAX

if TYPE_CHECKING:
    from distributed.security import Security

    from tftpbench.host.hosts.generator import HostsGenerator

Result = TypeVar("Result")
EXTRA = "pip install 'tftpbench[hosts]'"
# A certificate is good for a year, and from a day ago on, for clocks of hosts differ.
VALID_DAYS, CLOCKS_DAYS = 365, 1
# How long the scheduler of a cluster is waited for, and how long the end of a connection may take.
CONNECT_S, CLOSE_S = 10.0, 3.0
# How soon the end of a scheduler is seen.
_WATCH_S = 0.2
_ENDED = "its Dask worker has ended"
# Workers that a scheduler is asked about: all of them.
_ALL_WORKERS = -1
# Each call that waits for its answer has a connection: of each host a poll and another one.
_CONNECTIONS_MAX = 2 * HOSTS_MAX + 64
_OTHER_FILES = 256


@dataclass(frozen=True)
class Keys:
    """Files in PEM of one set of hosts: the authority's certificate, a certificate of it, and the key to that."""

    ca: Path
    cert: Path
    key: Path

    def check(self) -> None:
        """Raises UsageError where one of them is not there to be read."""
        for path in (self.ca, self.cert, self.key):
            try:
                path.open("rb").close()
            except OSError as error:
                raise UsageError(
                    f"{path}: {error.strerror}; make certificates with: tftpbench hosts init, or name those of your "
                    "cluster with --dask-ca, --dask-cert and --dask-key"
                ) from None


def needs_extra(what: str) -> UsageError:
    """What to say where Dask, or what makes certificates, is not installed."""
    return UsageError(f"{what}: needs the extra: {EXTRA}")


def config_folder() -> Path:
    """Where `make_keys` writes, and a load looks for certificates (XDG)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tftpbench/hosts"


def usual_keys() -> Keys:
    """The files that `make_keys` writes."""
    folder = config_folder()
    return Keys(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")


def make_keys(*, renew: bool = False) -> Keys:
    """New certificates for one set of hosts: `usual_keys`, for this user alone.

    The authority's own key is not kept, so that no further certificate can be made. Raises UsageError where there are
    some and `renew` is not asked for.
    """
    keys, folder = usual_keys(), config_folder()
    if folder.exists() and not renew:
        raise UsageError(f"{folder}: has certificates; use them, or make others with: tftpbench hosts init --renew")
    texts = _certificates()
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = folder.with_name(f"hosts.{secrets.token_hex(4)}")
    new.mkdir(mode=0o700)
    try:
        for path, text in zip((keys.ca, keys.cert, keys.key), texts, strict=True):
            write_private(new / path.name, text)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return keys


def _certificates() -> tuple[bytes, bytes, bytes]:
    """PEM: the authority, a certificate of it for all that speak to each other, and the key to that."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError:
        raise needs_extra("hosts") from None
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tftpbench {name}")])
        for name in ("hosts authority", "host")
    )

    def signed(name: x509.Name, key: ec.EllipticCurvePrivateKey, *, signs: bool) -> bytes:
        usage = x509.KeyUsage(
            digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        made = (
            x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=CLOCKS_DAYS))
            .not_valid_after(now + timedelta(days=VALID_DAYS))
            .add_extension(x509.BasicConstraints(ca=signs, path_length=0 if signs else None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        )
        if not signs:
            both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
            made = made.add_extension(both, critical=False)
        return made.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    key_text = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signed(issuer, authority, signs=True), signed(subject, own, signs=False), key_text


def write_private(path: Path, text: bytes) -> None:
    """A new file for this user alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(text)


def is_tls(address: str) -> bool:
    """Whether a scheduler's address has certificates; the other ones are on this machine.

    Raises UsageError for an address that is no scheduler's, or leads to another machine without encryption.
    """
    parts = _parts(address)
    if parts.scheme == "tls":
        return True
    if not _is_here(address):
        raise UsageError(
            f"--dask {address}: without certificates, all who reach that port can run programs on it; "
            "allowed: tls://HOST:PORT, and tcp:// on loopback"
        )
    return False


def _parts(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        if parts.scheme in {"tls", "tcp"} and parts.hostname and parts.port and not (parts.path or parts.query):
            return parts
    except ValueError:
        pass
    raise UsageError(f"--dask is {address!r}; allowed: a scheduler's address, as in tls://192.0.2.1:8786")


def _is_here(address: str) -> bool:
    """Whether only this machine reaches an address of Dask's."""
    host = _parts(address).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def load_hosts(
    address: str, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> "Iterator[HostsGenerator]":
    """What makes a load on all hosts of a cluster; each file is that of `make_keys` unless given.

    Raises UsageError for an address or files that can't be used, HostsError where the cluster can't be reached.
    """
    from tftpbench.host.hosts.generator import HostsGenerator

    usual = usual_keys()
    with DaskCarrier(address, Keys(ca or usual.ca, cert or usual.cert, key or usual.key)) as carrier:
        yield HostsGenerator(carrier)


class DaskCarrier:
    """Calls to the workers of a Dask cluster, each of which is a load host.

    `hosts` has the names of those that were there when it was made, in alphabetical order. Calls may be made from
    several threads at once, and several to one host.
    """

    def __init__(self, address: str, keys: Keys, workers: int = 0, timeout_s: float = CONNECT_S) -> None:
        """Connects, and where it is said how many workers there should be, waits for them; each for `timeout_s`.

        Raises UsageError for an address that is not allowed, HostsError where there is no scheduler. Where it is not
        said, and there is no worker at all, that is a HostsError, too.
        """
        self.address = address
        has_keys = is_tls(address)
        if importlib.util.find_spec("distributed") is None:
            raise needs_extra("--dask")
        security = _security(keys) if has_keys else None
        self._knock(timeout_s)
        self._lost: dict[str, str] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dask", daemon=True)
        self._thread.start()
        self._client: Any = None
        self._watching: asyncio.Task[None] | None = None
        try:
            self._addresses = self._wait(self._connect(security, workers, timeout_s), 3 * timeout_s)
        except BaseException:
            self.close()
            raise
        self.hosts: tuple[str, ...] = tuple(sorted(self._addresses))

    def call(self, host: str, load_id: str, call: str, document: bytes, timeout_s: float) -> bytes:
        """What the host answers. Raises HostLost where it does not, and HostsError where it has no such program."""
        return self._wait(self._call(host, load_id, call, document, timeout_s), timeout_s + CLOSE_S)

    def reached_at(self, host: str) -> str:
        """Where the host's worker listens, which the others reach. Raises HostsError where that is no number."""
        found = _parts(self._addresses[host]).hostname or ""
        try:
            return str(ip_address(found))
        except ValueError:
            raise HostsError(
                f"{host}: its worker is at {one_line(found)}, a name; give the worker a numeric address (--host)"
            ) from None

    def close(self) -> None:
        """Close the connection; agents and workers are left as they are."""
        with contextlib.suppress(Exception):  # the scheduler may be gone, and there is nothing left to say to it
            self._wait(self._disconnect(), 2 * CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _knock(self, timeout_s: float) -> None:
        """Raises HostsError where nothing listens. Dask itself would try it again until its time is over."""
        parts = _parts(self.address)
        try:
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout_s).close()
        except UnicodeError:
            raise UsageError(f"--dask {self.address}: is no name of a host; allowed: tls://HOST:PORT") from None
        except OSError as error:
            raise self._absent(error) from None

    @property
    def _ended(self) -> str:
        return f"the scheduler at {self.address} has ended"

    def _absent(self, error: OSError) -> HostsError:
        return HostsError(f"--dask {self.address}: no scheduler can be had there: {_why(error.strerror or error)}")

    def _wait(self, work: Coroutine[Any, Any, Result], timeout_s: float) -> Result:
        """What the work on the connection's own thread comes to."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            raise HostsError(f"--dask {self.address}: no answer within {timeout_s:g} s") from None
        finally:
            future.cancel()

    async def _connect(self, security: "Security | None", workers: int, timeout_s: float) -> dict[str, str]:
        """The address of each worker, by its name."""
        from distributed import Client

        _silence()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # unlike versions of Dask are no fault where calls get through
                self._client = await Client(
                    self.address, security=security, asynchronous=True, set_as_default=False, timeout=timeout_s,
                    connection_limit=_CONNECTIONS_MAX,
                )  # fmt: skip
            self._client.subscribe_topic("all", self._note)
            if workers:
                with contextlib.suppress(TimeoutError):
                    await self._client.wait_for_workers(workers, timeout_s)
            found = await self._client.scheduler.identity(n_workers=_ALL_WORKERS)
        except OSError as error:
            raise self._absent(error) from None
        if security is None and not all(map(_is_here, (found["address"], *found["workers"]))):
            raise UsageError(f"--dask {self.address}: this cluster is open to other machines, without certificates")
        if not (workers or found["workers"]):
            raise HostsError(f"--dask {self.address}: has no workers; start some, as with: tftpbench hosts up")
        _allow_files(2 * len(found["workers"]))
        self._changed = {address: asyncio.Event() for address in found["workers"]}
        self._watching = asyncio.create_task(self._watch())
        return {str(worker["name"]): address for address, worker in found["workers"].items()}

    async def _watch(self) -> None:
        """Lose all hosts as soon as the scheduler is gone. Dask itself would try to find it again for a while."""
        while self._client.status == "running":  # noqa: ASYNC110 (Dask tells nothing of it)
            await asyncio.sleep(_WATCH_S)
        for address in self._changed:
            self._lose(address, self._ended)

    async def _disconnect(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._client is not None:
            await self._client.close(CLOSE_S)

    def _note(self, event: tuple[float, object]) -> None:
        """Take note of a worker that the scheduler has lost."""
        seen = event[1]
        if isinstance(seen, Mapping) and seen.get("action") == "remove-worker":
            self._lose(str(seen.get("worker")), _ENDED)

    def _lose(self, address: str, why: str) -> None:
        self._lost.setdefault(address, why)
        if (changed := self._changed.get(address)) is not None:
            changed.set()

    async def _call(self, host: str, load_id: str, call: str, document: bytes, timeout_s: float) -> bytes:
        from tftpbench.host.hosts.carrier import HostLost, answer

        address = self._addresses[host]
        if address in self._lost:
            raise HostLost(host, self._lost[address])
        run = asyncio.ensure_future(
            self._client.run(answer, load_id, call, document, workers=[address], on_error="return")
        )
        run.add_done_callback(_seen)
        lost = asyncio.ensure_future(self._changed[address].wait())
        try:
            await asyncio.wait({run, lost}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not run.done():
                # Whether a call that is given up was carried out is not known: that host gets no other one.
                self._lose(address, f"no answer to {call} within {timeout_s:g} s")
            if address in self._lost:
                raise HostLost(host, self._lost[address])
            return self._answered(host, run)
        finally:
            run.cancel()
            lost.cancel()

    def _answered(self, host: str, run: "asyncio.Future[dict[str, object]]") -> bytes:
        from distributed.comm.core import CommClosedError

        from tftpbench.host.hosts.carrier import HostLost

        address = self._addresses[host]
        try:
            answered = run.result().get(address)
        except CommClosedError:  # of the connection to the scheduler
            self._lose(address, self._ended)
            raise HostLost(host, self._lost[address]) from None
        except OSError as error:
            self._lose(address, f"no answer through the scheduler at {self.address}: {_why(error)}")
            raise HostLost(host, self._lost[address]) from None
        if isinstance(answered, bytes):
            return answered
        # What a worker can't import comes as a text.
        if re.search(r"\b(ModuleNotFound|Import|Attribute)Error\b", repr(answered)):
            raise HostsError(f"{host}: has not the tftpbench of this machine: {_why(answered)}; install it there")
        self._lose(address, _ENDED if isinstance(answered, CommClosedError) else _why(answered))
        raise HostLost(host, self._lost[address])


def _allow_files(connections: int) -> None:
    """Raise this process's limit of open files where that many connections would reach it (getrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _security(keys: Keys) -> "Security":
    keys.check()
    from distributed.security import Security

    return Security(
        tls_ca_file=str(keys.ca),
        tls_client_cert=str(keys.cert),
        tls_client_key=str(keys.key),
        require_encryption=True,
    )


def _seen(run: "asyncio.Future[object]") -> None:
    """Take its exception, which is of no use once its host is lost; else it would be printed."""
    if not run.cancelled():
        run.exception()


def _why(error: object) -> str:
    return one_line(str(error) or type(error).__name__, 300)


def _silence() -> None:
    """Dask's own log lines are no part of what a command says: each fault becomes an error of ours."""
    for name in [*logging.root.manager.loggerDict]:
        if name.partition(".")[0] in {"distributed", "tornado"}:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
