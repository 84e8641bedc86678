"""MongoDB, by PyMongo: one class for a `MongoClient` and an `AsyncMongoClient`."""
