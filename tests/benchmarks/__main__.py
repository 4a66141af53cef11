"""What `import athina_trace` costs beside the packages it needs, in wall milliseconds over bare Python."""

import statistics
import subprocess
import sys
import time

ROUNDS = 9
STATEMENTS = {
    "athina_trace": "import athina_trace",
    "wrapt + pydantic": "import wrapt, pydantic",
    "wrapt + pydantic + httpx": "import wrapt, pydantic, httpx",
}


def milliseconds(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return (time.perf_counter() - began) * 1000


def median(statement: str) -> float:
    return statistics.median(milliseconds(statement) for _ in range(ROUNDS))


def main() -> None:
    bare = median("pass")
    print(f"Import time, median of {ROUNDS}, Python {sys.version.split()[0]} (bare interpreter {bare:.0f} ms)")
    for name, statement in STATEMENTS.items():
        print(f"  {name:26} {median(statement) - bare:6.1f} ms")


if __name__ == "__main__":
    main()
