"""Results of a record: scores, alarms, pictures and the report."""
