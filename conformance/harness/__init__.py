"""What `conformance/run` is made of: brokers to test, clients to install, suites to run, results to count."""
