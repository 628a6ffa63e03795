//! Gone: seen not to be there any more.

use serde::{Deserialize, Serialize};

/// Something was looked for and is not there. (Not `()`, which JSON cannot tell from nothing.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {}
