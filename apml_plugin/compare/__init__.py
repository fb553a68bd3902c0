"""``apml compare``: one small, fixed, seeded study of losses: same network, same data, same steps.

`study` is what is trained and measured, `running` goes through it and resumes, `report` and `picture` show it.
"""
