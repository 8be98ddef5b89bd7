"""What puts nightvault into an AWS account: one CloudFormation template, one zip, `make deploy` and `make destroy`.

functions.py   which Lambdas there are, and what they are called in the template
policies.py    what each of them may do
alarms.py      what is watched, and when it is wrong; docs/runbooks has a page for each
dashboard.py   what people look at
parts.py       what of the template is computed: functions' names and variables, log groups, user data
packaging.py   `chalice package` with all that merged: template and zip, the same bytes for the same sources
"""
