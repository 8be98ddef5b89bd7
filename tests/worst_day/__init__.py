"""`make worst-day`: everything is lost at once, and docs/worst-day.md gets the data back. All is real but AWS."""
