"""Train and test one network: `python train.py model=unet3d loss=focal`.

Every option is a YAML group in conf/; `python train.py --help` lists them. The run's folder is
printed at the end and holds everything needed to judge and to repeat it.
"""

from segshift.cli import train

if __name__ == "__main__":
    train()
