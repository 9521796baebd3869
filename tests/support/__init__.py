"""What the tests of several rooms share: scratch projects and builds, a running server."""
