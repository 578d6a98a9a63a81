"""The files of runs behind an HTTP server with a page: `edgeopt serve`."""
