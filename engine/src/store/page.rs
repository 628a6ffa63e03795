//! Pages: how many rows a list shows at a time.

/// How many rows a page has when nobody says.
const PAGE: u32 = 50;
/// And at most.
const PAGE_MAX: u32 = 1000;

/// The rows of a page that was asked for with this limit.
pub(super) fn page(limit: u32) -> u32 {
    if limit == 0 { PAGE } else { limit.min(PAGE_MAX) }
}
