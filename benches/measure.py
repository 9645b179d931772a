"""What the benches share: contenders that take turns, processes that are watched, and results that are kept as JSON lines.

A result is one contender in one cell: date, machine, versions, command, rows of the delta and of production, the seconds of each round,
the ratio of its median to the base's of the same run, and the peak memory in MiB. `draw.py` makes tables and a plot of them.
"""

import argparse, contextlib, dataclasses, datetime, json, os, pathlib, random, shutil, signal, statistics, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Options that say where things are on this machine, so not part of a result's command.
PLACES = ("--pipeline", "--beside", "--results", "--folder")


@dataclasses.dataclass
class Ran:
    """What a contender took. `peak` is None where the work was a server's, `steps` are the program's own times."""
    seconds: float
    peak: float | None = None
    steps: dict | None = None
    counts: dict | None = None


def high_water(process="self"):
    """The most memory that a process had until now, in KiB, as the kernel counts it; 0 when it is gone."""
    try:
        return next((int(line.split()[1]) for line in open(f"/proc/{process}/status") if line.startswith("VmHWM")), 0)
    except OSError:
        return 0


def watched(command, **kwargs):
    """Runs a command to its end; gives its exit code, what it printed, and seconds and peak memory."""
    seen, over = [0], threading.Event()
    begun = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, **kwargs)

    def watch():
        while not over.wait(0.05):
            seen[0] = max(seen[0], high_water(process.pid))
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        raise
    finally:
        over.set()
    seconds = time.monotonic() - begun
    watcher.join()
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    # `ru_maxrss` misses nothing, but begins with what this process had when it forked; only above that is it the child's.
    peak = usage.ru_maxrss if usage.ru_maxrss > high_water() else seen[0]
    return process.returncode, said, Ran(seconds, peak / 1024)


def by_hand(*command, **kwargs):
    """A contender that is a process of its own and prints its seconds as JSON, without the time that Python takes to start."""
    code, said, ran = watched([sys.executable, *command], **kwargs)
    if code != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {code}")
    told = json.loads(said)
    return dataclasses.replace(ran, seconds=told["seconds"], counts=told.get("counts"))


def pipeline(options, command, file, *arguments, accept=(0,), program=None, **kwargs):
    """The program itself, as a user runs it. Its seconds are those of the whole process."""
    more = ["--memory-limit", options.memory_limit] if options.memory_limit else []
    more += ["--threads", options.threads] if options.threads else []
    code, said, ran = watched([program or options.pipeline, command, file, *arguments, "-q", "--output", "json", *more], **kwargs)
    if code not in accept:
        sys.exit(f"pipeline {command}: exit code {code}\n{said}")
    report = json.loads(said)
    counts = {f"{table['name']}.{check['name']}": check["violations"] for table in report["tables"] for check in table.get("checks", [])}
    steps = {step["step"]: round(step["seconds"], 3) for step in report.get("steps", [])}
    return dataclasses.replace(ran, steps=steps, counts=counts)


def number(text):
    """`150000`, `150k` or `10m`."""
    scale = {"k": 1_000, "m": 1_000_000}.get(text[-1:].lower(), 1)
    return int(float(text[:-1] if scale > 1 else text) * scale)


def split(rows):
    """A number of rows as a fifth parents and the rest their children."""
    return {"customer": max(1, rows // 5), "sale": rows - max(1, rows // 5)}


def referred(count, options, number="n"):
    """SQL that both databases have: which of `count` rows the row `number` refers to. They come in no order (Fibonacci hashing), so a server that looks
    at each of them finds another page each time; with `--in-order` it is the page that it has just had."""
    whole = f"CAST({number} AS bigint)"
    return f"({whole} % {count})" if options.in_order else f"({whole} * 2654435761 % 4294967296 * {count} / 4294967296)"


def arguments(text, rounds=3):
    """A parser with the options that all benches have."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--only", action="append", help="of the contenders this one, or those with this in their name; more than once for more")
    parser.add_argument("--memory-limit", help="the program's, such as 512MiB")
    parser.add_argument("--threads", type=int, help="the program's; by default one a processor")
    parser.add_argument("--results", help="a file that each result is added to as a line of JSON")
    parser.add_argument("--in-order", action="store_true", help="loads: sales come in the order of their customers")
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    parser.add_argument("--beside", help="loads: another build of the program, such as the version before, which takes part as `run beside`")
    parser.add_argument("--pipeline", default=str(pathlib.Path(target, "release", "pipeline")))
    return parser


def chosen(contenders, only):
    """The contenders that `--only` names."""
    if not only:
        return contenders
    wanted = {name for text in only for name in ([text] if text in contenders else [name for name in contenders if text in name])}
    if not wanted:
        sys.exit(f"none of the contenders is {' or '.join(only)}: they are {', '.join(contenders)}")
    return {name: contender for name, contender in contenders.items() if name in wanted}


@contextlib.contextmanager
def scratch(need=0):
    """A folder that all users may write to, gone at the end, also by SIGTERM; refused where the disk has not `need` bytes for it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        free = shutil.disk_usage(folder).free
        if free < need:
            sys.exit(f"this needs about {need / 1e9:.0f} GB in {folder.parent}, {free / 1e9:.0f} are free: another TMPDIR, or fewer rows")
        folder.chmod(0o777)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def turns(contenders, rounds, fresh, check=lambda name: None):
    """Every contender once a round, each after `fresh(name)`, in another order each round, since one may leave the machine better or worse for the next
    (always the same orders); gives what each took."""
    took = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in random.Random(turn).sample(list(contenders), len(contenders)):
            fresh(name)
            took[name].append(contenders[name]())
            check(name)
            print(f"  {turn + 1}/{rounds} {name}: {took[name][-1].seconds:.2f} s", file=sys.stderr)
    return took


def sync(file):
    """Brings a file to disk, and what else is on its way there, so that no contender pays for it."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    os.sync()


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return {"cores": len(os.sched_getaffinity(0)), "cpu": cpu, "memory_gib": round(memory / 2**20), "load": round(os.getloadavg()[0], 2)}


def versions(options, **more):
    asked = subprocess.run([options.pipeline, "--version"], stdout=subprocess.PIPE, text=True)
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return {"pipeline": asked.stdout.strip().removeprefix("pipeline "), "commit": commit.stdout.strip() or None,
            "python": sys.version.split()[0], **more}


def command():
    """How this bench was called, as it can be called on another machine."""
    words, skip = [], False
    for word in sys.argv[1:]:
        if not skip and word.split("=")[0] not in PLACES:
            words.append(f"'{word}'" if " " in word else word)
        skip = not skip and word in PLACES
    return " ".join(["python3", f"benches/{pathlib.Path(sys.argv[0]).name}", *words])


def middle(runs):
    return statistics.median(ran.seconds for ran in runs)


def results(options, bench, cell, took, base, about):
    """Makes the results of one cell, adds them to `--results`, and gives them."""
    bench, found = f"{bench}, in order" if options.in_order else bench, []
    for name, runs in took.items():
        peaks = [ran.peak for ran in runs if ran.peak]
        found.append({
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"), "bench": bench, **cell, "contender": name,
            "seconds": [round(ran.seconds, 3) for ran in runs], "ratio": round(middle(runs) / middle(took[base]), 3) if base in took else None,
            "peak_mib": round(max(peaks)) if peaks else None, "memory_limit": options.memory_limit, "threads": options.threads,
            "steps": runs[-1].steps, "command": command(), **about})
    if options.results:
        with open(options.results, "a") as file:
            file.writelines(json.dumps(result) + "\n" for result in found)
    return found
