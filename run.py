"""The one entry point: `python run.py [group=choice] [field=value] …`; see README.md."""

from oligo_ad.command import start

if __name__ == "__main__":
    start()
