"""Networks of the published methods that MSG-LDM is compared with; `docs/baselines.md` says what each one is."""
