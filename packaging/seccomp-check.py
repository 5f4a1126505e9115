#!/usr/bin/python3
"""Runs the server under packaging/seccomp.json, without a container, and shows that the profile allows what the server
needs and no more. No root is needed.

    packaging/seccomp-check.py BINARY [PROFILE]

Needs Linux 5.5 or later and the Debian packages python3-seccomp and mosquitto-clients.

1. A whole life under the profile: start, QoS 0 to 2, a password, retirement to the old generation, reload, metrics, drain.
   Each system call that the profile would refuse is reported by the kernel (SCMP_ACT_NOTIFY in place of the default
   action), is answered as the profile says, and fails the check, even if the server went on without it.
2. kill -9 and a second life under the profile exactly as it stands.
3. Under the profile as it stands, calls that a server has no use for must fail.
"""

import errno
import json
import os
import platform
import queue
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import seccomp

# vfork stops its caller, global lock in hand, until the child runs; a report about the child could not be answered.
subprocess._USE_VFORK = False

PATIENCE_SECONDS = 120
MESSAGES = 200

COMPARE = {
    "SCMP_CMP_NE": seccomp.NE, "SCMP_CMP_LT": seccomp.LT, "SCMP_CMP_LE": seccomp.LE, "SCMP_CMP_EQ": seccomp.EQ,
    "SCMP_CMP_GE": seccomp.GE, "SCMP_CMP_GT": seccomp.GT,
}
ARCHITECTURES = {
    "SCMP_ARCH_X86_64": seccomp.Arch.X86_64, "SCMP_ARCH_X86": seccomp.Arch.X86, "SCMP_ARCH_X32": seccomp.Arch.X32,
    "SCMP_ARCH_AARCH64": seccomp.Arch.AARCH64, "SCMP_ARCH_ARM": seccomp.Arch.ARM,
}
NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[platform.machine()]


class Failed(Exception):
    """A step of the check."""


def action(name, number):
    """The action of a profile as libseccomp wants it."""
    if name == "SCMP_ACT_ALLOW":
        return seccomp.ALLOW
    if name == "SCMP_ACT_ERRNO":
        return seccomp.ERRNO(errno.EPERM if number is None else number)
    raise Failed(f"the profile uses {name}, which this check does not know")


def argument(rule):
    """A condition on an argument of a system call."""
    if rule["op"] == "SCMP_CMP_MASKED_EQ":
        return seccomp.Arg(rule["index"], seccomp.MASKED_EQ, rule["value"], rule["valueTwo"])
    return seccomp.Arg(rule["index"], COMPARE[rule["op"]], rule["value"])


def is_known(name):
    """Whether this libseccomp has heard of the call at all; profiles name some that are younger."""
    return seccomp.resolve_syscall(seccomp.Arch(seccomp.Arch.NATIVE), name) != -1


def name_of(number):
    """The name of a system call, or its number if that is all that is known."""
    name = seccomp.resolve_syscall(seccomp.Arch(seccomp.Arch.NATIVE), number)
    return name.decode() if isinstance(name, bytes) else str(number)


def build_filter(profile, default):
    """The profile as a filter, and the names of calls that this libseccomp does not know."""
    built = seccomp.SyscallFilter(default)
    for entry in profile["archMap"]:
        if entry["architecture"] == NATIVE:
            for name in entry["subArchitectures"]:
                built.add_arch(ARCHITECTURES[name])
    unknown = []
    for rules in profile["syscalls"]:
        what = action(rules["action"], rules.get("errnoRet"))
        if what == default:
            continue
        for name in rules["names"]:
            if is_known(name):
                built.add_rule(what, name, *map(argument, rules.get("args", [])))
            else:
                unknown.append(name)
    return built, unknown


class Jail:
    """Starts processes under the profile. A filter holds for the thread that loads it and what that thread starts, so a
    thread of its own does both; the others of this process stay free, and one of them hears what the kernel reports."""

    def __init__(self, profile, observed):
        refusal = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        self.refusal_number = profile.get("defaultErrnoRet") or errno.EPERM
        self.filter, self.unknown = build_filter(profile, seccomp.NOTIFY if observed else refusal)
        self.refused = []
        self._orders = queue.Queue()
        self._loaded = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()
        self._loaded.wait()
        if observed:
            threading.Thread(target=self._listen, daemon=True).start()

    def start(self, command, **options):
        """`subprocess.Popen` inside."""
        answer = queue.Queue()
        self._orders.put((command, options, answer))
        result = answer.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def _work(self):
        self.filter.load()
        self._loaded.set()
        while True:
            command, options, answer = self._orders.get()
            try:
                answer.put(subprocess.Popen(command, **options))
            except BaseException as error:  # handed to who asked
                answer.put(error)

    def _listen(self):
        while True:
            # receive_notify would wait with Python's global lock in hand, and nobody could do what it waits for.
            select.select([self.filter.get_notify_fd()], [], [])
            try:
                report = self.filter.receive_notify()
                self.refused.append(name_of(report.syscall))
                self.filter.respond_notify(seccomp.NotificationResponse(report, 0, -self.refusal_number, 0))
            except RuntimeError:
                pass  # the process has ended meanwhile


def wait_until(what, condition):
    """Looks again and again until `condition` gives something, and gives that."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > until:
            raise Failed(f"waited {PATIENCE_SECONDS} s in vain until {what}")
        time.sleep(0.02)


class Server:
    """`postroad serve` in a jail."""

    def __init__(self, jail, binary, folder):
        self.folder = folder
        self.data = os.path.join(folder, "data")
        ports = os.path.join(self.data, "ports.json")
        if os.path.exists(ports):
            os.remove(ports)  # of a life that was killed
        self.log_path = os.path.join(folder, "log")
        command = [binary, "serve", "--data", self.data]
        for setting in ["listen.mqtt=127.0.0.1:0", "listen.http=127.0.0.1:0", "shards=2", "log.young_bytes=1MiB",
                        "log.segment_bytes=256KiB", "log.young_age=1s", "auth.anonymous=allow",
                        f"auth.file={folder}/auth.toml"]:
            command += ["--set", setting]
        with open(self.log_path, "a") as log:
            self.process = jail.start(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.ports = wait_until("the server is ready", lambda: self._ports(ports))

    def _ports(self, path):
        if self.process.poll() is not None:
            raise Failed(f"the server ended with {self.process.returncode}:\n{self.log()}")
        return json.load(open(path)) if os.path.exists(path) else None

    def log(self):
        with open(self.log_path) as file:
            return file.read()

    def page(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['http']}{path}", timeout=PATIENCE_SECONDS) as page:
            return page.read().decode()

    def metric(self, name):
        """The sum over all labels."""
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.page("/metrics"), re.MULTILINE)
        if not values:
            raise Failed(f"no metric {name}")
        return sum(map(float, values))

    def client(self, tool, *arguments, text=None):
        command = [tool, "-h", "127.0.0.1", "-p", str(self.ports["mqtt"]), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        return self.process.wait(PATIENCE_SECONDS)


def messages(name):
    # Long enough that a few hundred fill the young generation.
    return [f"{name}-{number}-" + "x" * 8000 for number in range(MESSAGES)]


def subscribe(server, device):
    server.client("mosquitto_sub", "-c", "-i", device, "-q", "2", "-t", f"{device}/#", "-E")


def publish(server, topic, qos, payloads):
    server.client("mosquitto_pub", "-q", str(qos), "-t", topic, "-l", text="".join(f"{one}\n" for one in payloads))


def expect(server, device, payloads):
    received = server.client("mosquitto_sub", "-c", "-i", device, "-q", "2", "-t", f"{device}/#", "-C",
                             str(len(payloads)), "-W", str(PATIENCE_SECONDS))
    if received.splitlines() != payloads:
        raise Failed(f"{device}: {len(received.splitlines())} of {len(payloads)} messages, or in another order; the first is {received[:20]!r}")


def first_life(server, binary):
    for device, qos in [("one", 1), ("two", 2)]:
        subscribe(server, device)
        publish(server, f"{device}/a", qos, messages(device))
    publish(server, "nobody/a", 0, ["gone"])
    wait_until("the old generation holds messages", lambda: server.metric("postroad_log_old_bytes") > 0)
    expect(server, "two", messages("two"))
    if "postroad_" not in server.page("/metrics") or "ready" not in server.page("/ready").lower():
        raise Failed("the HTTP listener does not answer as it should")

    add_user(binary, server.folder)
    before = server.log().count("are read anew")
    server.signal(signal.SIGHUP)
    wait_until("the reload is done", lambda: server.log().count("are read anew") > before)
    server.client("mosquitto_pub", "-u", "u", "-P", "secret", "-q", "1", "-t", "b", "-m", "by a user")


def add_user(binary, folder):
    command = [binary, "passwd", "--file", f"{folder}/auth.toml", "u"]
    subprocess.run(command, input="secret\n", check=True, capture_output=True, text=True)


def second_life(server):
    expect(server, "one", messages("one"))
    # By QoS 2: mosquitto_sub closes with the SUBACK unread once it has its count, which resets the connection, and the
    # acknowledgements of QoS 1 that the kernel held for the server are lost.
    publish(server, "two/a", 2, ["again"])
    expect(server, "two", ["again"])
    server.signal(signal.SIGTERM)
    if server.wait() != 0:
        raise Failed(f"the drain ended with {server.process.returncode}:\n{server.log()}")


# Call by number, so that the answer is the kernel's and not that of a wrapper in the C library.
PROBES = {
    "mount": (b"none", b"/tmp", b"tmpfs", 0, 0), "umount2": (b"/nowhere", 0), "ptrace": (0, 0, 0, 0),
    "unshare": (0x10000000,), "setns": (-1, 0), "bpf": (0, 0, 0), "perf_event_open": (0, 0, 0, 0, 0),
    "init_module": (0, 0, b""), "kexec_load": (0, 0, 0, 0), "keyctl": (0, 0, 0), "add_key": (b"user", b"x", b"y", 1, -1),
    "reboot": (0, 0, 0), "swapon": (b"/nowhere", 0), "chroot": (b"/",), "pivot_root": (b"/nowhere", b"/nowhere"),
    "process_vm_readv": (1, 0, 0, 0, 0, 0), "userfaultfd": (0,), "settimeofday": (0, 0), "acct": (0,),
    "open_by_handle_at": (-1, 0, 0), "personality": (0xFFFFFFFF,),
}
CLONE_NEWUSER = 0x10000000
PROBE_SCRIPT = """
import ctypes, json, sys
call = ctypes.CDLL(None, use_errno=True).syscall
for name, number, arguments in json.load(sys.stdin):
    arguments = [a.encode() if isinstance(a, str) else ctypes.c_long(a) for a in arguments]
    ctypes.set_errno(0)
    result = call(ctypes.c_long(number), *arguments)
    print(name, result, ctypes.get_errno(), flush=True)
    if name == "clone" and result == 0:
        import os; os._exit(0)
"""


def probe(jail, number_expected):
    native = seccomp.Arch(seccomp.Arch.NATIVE)
    calls = [(name, arguments, number_expected) for name, arguments in PROBES.items()]
    # Threads are made by clone; namespaces must not be. clone3 hides its flags from the filter: ENOSYS makes the C library
    # take clone instead.
    calls += [("clone", (CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0), number_expected), ("clone3", (0, 0), errno.ENOSYS)]
    text = [(name, seccomp.resolve_syscall(native, name), [a.decode() if isinstance(a, bytes) else a for a in arguments])
            for name, arguments, _ in calls]
    process = jail.start([sys.executable, "-c", PROBE_SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(json.dumps(text), timeout=PATIENCE_SECONDS)
    answers = {line.split()[0]: tuple(map(int, line.split()[1:])) for line in output.splitlines()}
    wrong = [f"{name}: {answers.get(name)}" for name, _, number in calls if answers.get(name) != (-1, number)]
    if wrong:
        raise Failed(f"calls that the profile should refuse (result, errno): {', '.join(wrong)}")
    return len(calls)


def check(binary, profile_path):
    with open(profile_path) as file:
        profile = json.load(file)
    observed = Jail(profile, observed=True)
    folder = tempfile.mkdtemp(prefix="postroad-seccomp-", dir=os.environ.get("TMPDIR", "/var/tmp"))
    server = None
    try:
        add_user(binary, folder)
        server = Server(observed, binary, folder)
        first_life(server, binary)
        server.signal(signal.SIGKILL)
        server.wait()
        if observed.refused:
            raise Failed("the server asked for more than it may")
        plain = Jail(profile, observed=False)
        server = Server(plain, binary, folder)
        second_life(server)
        probes = probe(plain, plain.refusal_number)
        if plain.unknown:
            print(f"not tried, since this libseccomp does not know them: {', '.join(plain.unknown)}")
        print(f"the server needs nothing that the profile refuses; {probes} calls that it should refuse are refused")
    except Failed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        if observed.refused:
            print(f"refused: {', '.join(sorted(set(observed.refused)))}", file=sys.stderr)
        if server:
            print("".join(server.log().splitlines(keepends=True)[-20:]), file=sys.stderr)
        return 1
    finally:
        if server and server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seccomp.json")
    sys.exit(check(os.path.abspath(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else beside))
