"""Test an existing model on other cases.

`python evaluate.py checkpoint=runs/NAME/TIME data=manifest data.manifest=PATH`; cases of patients
that the model was trained or chosen on are left out. `python evaluate.py predictions=FOLDER
references=FOLDER` scores masks that any software made.
"""

from segshift.cli import evaluate

if __name__ == "__main__":
    evaluate()
