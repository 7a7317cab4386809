import importlib.util

# a server has an environment of its own, see Makefile
collect_ignore = [] if importlib.util.find_spec("monailabel") else ["server"]
