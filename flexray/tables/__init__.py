"""Tables for terminals. Colours, and more than 80 columns, only where there is a terminal that has them."""

from flexray.tables.sheets import print_sheets, progress_bar
from flexray.tables.status import print_queues, print_status, queue_table

__all__ = ["print_queues", "print_sheets", "print_status", "progress_bar", "queue_table"]
