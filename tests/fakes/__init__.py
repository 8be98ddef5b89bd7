"""Hand-written fakes of the ports. They obey the contract suites in tests/contract, like the real adapters."""
