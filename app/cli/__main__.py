"""`python -m app.cli`: what torchrun starts."""

from app.cli import main

if __name__ == "__main__":
    main()
