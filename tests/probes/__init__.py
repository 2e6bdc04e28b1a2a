"""Methods that exist to prove the contract: each is written as a third party would write it."""
