"""What a run answers of three reporting standards: DOME, REFORMS and TRIPOD+AI."""
