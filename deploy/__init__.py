"""Deployment: image, Compose stack, Helm chart, and the test of the stack."""
