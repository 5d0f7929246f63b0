"""Several runs that answer one question: `python study.py study=cross_site data=...`.

Each job is a run of train.py in a process of its own. A study that was stopped goes on with the
same command; its folder holds the tables and the report. `python study.py --help` lists studies.
"""

from segshift.cli import study

if __name__ == "__main__":
    study()
