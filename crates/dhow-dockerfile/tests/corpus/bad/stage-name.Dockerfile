FROM a AS -x
