"""`rela report`: one HTML page about finished runs.

In: runs and their evaluations. Out: report.html and its figures.
Begin with `report.py`; `savings.py` computes what the prior saved.
"""
