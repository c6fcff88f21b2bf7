"""The operator's page at `/ops`: written on the server, whole without a script, and kept up to date by one."""
