"""From predictions to numbers, alarms, pictures and one report."""
