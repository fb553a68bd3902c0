"""``apml compare``: one small, fixed, seeded study of losses, with the same network, data and steps for each.

`study` trains, measures and resumes; `report` and `picture` show the results.
"""
