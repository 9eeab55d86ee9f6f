#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Executes every form on the first CUDA device and writes a golden file and a report.

    python3 tests/ptxsim/record_goldens.py --out FOLDER

It needs Python 3.8 and libcuda.so.1, nothing else. Forms run in child processes, because a kernel that faults takes its
context with it: the parent notes the form and goes on with the next in a new child. It keeps what it has every few
seconds, and ends within --deadline whatever happens.
"""
import argparse
import json
import os
import select
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import forms  # noqa: E402
import golden_file  # noqa: E402

GROUP = 64            # forms of one child: a context costs up to a second
START_SECONDS = 90    # until a child has a context
KEEP_SECONDS = 5      # between two writes of the file
OLDER_VERSION = ".version 7.8"


def child(todo, table, pipe):
    """Executes forms and tells the parent: device JSON, start N, done N HEX, refused N TEXT, failed N TEXT, end."""
    def tell(text):
        data = (text + "\n").encode()
        while data:
            data = data[os.write(pipe, data):]
    import cuda_driver
    try:
        driver = cuda_driver.Driver()
        tell("device " + json.dumps(driver.information()))
    except Exception as error:
        tell("hopeless " + json.dumps(str(error)))
        return
    for index in todo:
        tell("start %d" % index)
        form = table[index]
        try:
            tell("done %d %s" % (index, golden_file.pack(form, attempt(driver, form)).hex()))
        except cuda_driver.DriverError as error:
            if error.code in cuda_driver.REFUSALS:
                tell("refused %d %s" % (index, json.dumps(str(error))))
                continue
            tell("failed %d %s" % (index, json.dumps(str(error))))
            return
    tell("end")


def attempt(driver, form):
    """Executes a form; a driver too old for the table's usual PTX version is asked again with an older one."""
    import cuda_driver
    text = form.ptx()
    try:
        return driver.execute(form, text)
    except cuda_driver.DriverError as error:
        if error.code not in cuda_driver.REFUSALS or not text.startswith(".version 8.0") or "ersion" not in str(error):
            raise
        return driver.execute(form, text.replace(".version 8.0", OLDER_VERSION, 1))


class Worker:
    """A child process, the forms that it still has to execute, and what it is at."""

    def __init__(self, todo, table):
        self.todo, self.current, self.buffer, self.ended = list(todo), None, b"", False
        self.limit = time.time() + START_SECONDS
        self.pipe, write = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            code = 1
            try:
                os.close(self.pipe)
                child(self.todo, table, write)
                code = 0
            finally:
                os._exit(code)
        os.close(write)

    def lines(self):
        """The lines that have arrived; None at the end of the pipe."""
        data = os.read(self.pipe, 1 << 16)
        if not data:
            return None
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        return [line.decode() for line in lines]

    def stop(self):
        try:
            os.kill(self.process, signal.SIGKILL)
        except OSError:
            pass
        os.close(self.pipe)
        # A process inside the driver may not end at once: do not wait for it for long.
        for _ in range(50):
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                return "signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else \
                    "status %d" % os.WEXITSTATUS(status)
            time.sleep(0.02)
        return "still running"


class Recorder:
    def __init__(self, options, table):
        self.options, self.table, self.begun = options, table, time.time()
        self.information, self.results, self.refused, self.failed = {}, {}, {}, {}
        self.kept, self.starts, self.hopeless = time.time(), 0, []

    def path(self):
        return os.path.join(self.options.out, "sm_%s.golden" % self.information.get("sm", "unknown"))

    def keep(self):
        order = [form.name for form in self.table if form.name in self.results]
        golden_file.write(self.path(), self.information, {name: self.results[name] for name in order},
                          dict(self.refused, **self.failed))
        self.kept = time.time()

    def handle(self, worker, line):
        kind, _, rest = line.partition(" ")
        if kind == "device":
            self.information = json.loads(rest)
        elif kind == "end":
            worker.ended = True
        elif kind == "hopeless":
            # A device that takes one process at a time refuses the others.
            self.hopeless.append(json.loads(rest))
            self.options.jobs = 1
        else:
            number, _, text = rest.partition(" ")
            index = int(number)
            form = self.table[index]
            worker.current = index if kind == "start" else None
            if kind != "start":
                worker.todo.remove(index)
            if kind == "done":
                self.results[form.name] = (forms.digest(form), bytes.fromhex(text))
            elif kind == "refused":
                self.refused[form.name] = "refused: " + json.loads(text)
            elif kind == "failed":
                self.failed[form.name] = "failed: " + json.loads(text)
        worker.limit = time.time() + self.options.patience

    def retire(self, worker, reason):
        """Ends a child; what it had not reached becomes a new group, the form that it was at is noted as failed."""
        status = worker.stop()
        if worker.current is not None:
            self.failed[self.table[worker.current].name] = "failed: %s, %s" % (reason, status)
            worker.todo.remove(worker.current)
        return worker.todo

    def run(self):
        groups = [list(range(begin, min(begin + GROUP, len(self.table)))) for begin in range(0, len(self.table), GROUP)]
        workers = []
        while (groups or workers) and time.time() - self.begun < self.options.deadline:
            while groups and len(workers) < self.options.jobs and self.starts < 200 and \
                    (self.information or len(self.hopeless) < 6):
                workers.append(Worker(groups.pop(0), self.table))
                self.starts += 1
            if not workers:
                break
            ready = select.select([worker.pipe for worker in workers], [], [], 0.2)[0]
            for worker in list(workers):
                lines = worker.lines() if worker.pipe in ready else []
                for line in lines or []:
                    self.handle(worker, line)
                if lines is None or time.time() > worker.limit:
                    workers.remove(worker)
                    left = self.retire(worker, "the process ended" if lines is None else "no answer in time")
                    if left:
                        groups.append(left)
            if self.results and time.time() - self.kept > KEEP_SECONDS:
                self.keep()
        for worker in workers:
            worker.current = None
            self.retire(worker, "deadline")

    def report(self):
        missing = [form.name for form in self.table
                   if form.name not in self.results and form.name not in self.refused and form.name not in self.failed]
        lines = ["%s, driver %s, CUDA %s" % (self.information.get("device"), self.information.get("driver"),
                                             self.information.get("cuda")),
                 "%d of %d forms recorded, %d refused, %d failed, %d not reached; %.1f s, %d processes" %
                 (len(self.results), len(self.table), len(self.refused), len(self.failed), len(missing),
                  time.time() - self.begun, self.starts)]
        lines += ["no device: " + text for text in self.hopeless]
        lines += ["%s: %s" % item for item in list(self.failed.items()) + list(self.refused.items())]
        lines += ["%s: not reached" % name for name in missing]
        return lines


def main():
    parser = argparse.ArgumentParser(description="Records what a CUDA device answers to every form.")
    parser.add_argument("--out", required=True, help="the folder of the golden file and of report.txt")
    parser.add_argument("--only", default="", help="forms whose name contains this")
    parser.add_argument("--jobs", type=int, default=4, help="processes at a time")
    parser.add_argument("--deadline", type=float, default=200, help="seconds after which it stops with what it has")
    parser.add_argument("--patience", type=float, default=25, help="seconds for one form")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    os.environ["CUDA_CACHE_DISABLE"] = "1"
    table = [form for form in forms.all_forms() if form.gpu and options.only in form.name]
    recorder = Recorder(options, table)
    try:
        recorder.run()
    finally:
        lines = recorder.report()
        if recorder.results:
            recorder.keep()
            lines.append("%s: %d bytes" % (os.path.basename(recorder.path()), os.path.getsize(recorder.path())))
        with open(os.path.join(options.out, "report.txt"), "w") as file:
            file.write("\n".join(lines) + "\n")
        print("\n".join(lines[:200]))
    return 0 if recorder.results else 1


if __name__ == "__main__":
    sys.exit(main())
