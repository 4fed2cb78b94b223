"""What several tests share: small models and experiments, reference twins, stand-ins and documents."""
