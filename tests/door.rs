//! A door: one address in front of whichever server is behind it just now.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// An address that can be led elsewhere; whoever is inside then is thrown out.
pub struct Door {
    pub address: SocketAddr,
    behind: Arc<Mutex<(u16, JoinSet<()>)>>,
}

impl Door {
    /// A door on a free port, with this port of this machine behind it.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = Arc::new(Mutex::new((port, JoinSet::new())));
        let led = behind.clone();
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let mut led = led.lock().unwrap();
                let port = led.0;
                led.1.spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = copy_bidirectional(&mut from, &mut to).await;
                    }
                });
                while led.1.try_join_next().is_some() {}
            }
        });
        Self { address, behind }
    }

    /// Leads to this port from now on.
    pub fn lead_to(&self, port: u16) {
        let mut behind = self.behind.lock().unwrap();
        *behind = (port, JoinSet::new());
    }
}
