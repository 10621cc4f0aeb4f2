"""`make compose-test` tests the Compose stack under load and faults; `make manifests` renders the Helm chart."""
