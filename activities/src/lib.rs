//! activities.
