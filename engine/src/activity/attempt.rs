//! Attempt.
