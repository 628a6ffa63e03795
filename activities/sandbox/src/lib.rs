//! The sandbox: stand-ins for every provider, as real HTTP servers with a memory of their own.
