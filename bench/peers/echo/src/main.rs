//! Servers that send back whatever comes, on tokio and monoio, for `flotilla-bench runtime`.
//!
//! `echo-peers tokio-multi|tokio-current|monoio` listens on a free port of the loopback interface, prints it, and serves until
//! it is killed.

use std::net::{SocketAddr, TcpListener};

const BUFFER_BYTES: usize = 16 * 1024;

fn main() {
    let kind = std::env::args().nth(1).unwrap_or_default();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    match kind.as_str() {
        "tokio-multi" => {
            println!("{address}");
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(tokio_echo(listener));
        }
        "tokio-current" => {
            println!("{address}");
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(tokio_echo(listener));
        }
        "monoio" => {
            drop(listener);
            monoio_echo(address);
        }
        _ => panic!("tokio-multi, tokio-current or monoio, not {kind:?}"),
    }
}

async fn tokio_echo(listener: TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    listener.set_nonblocking(true).expect("it can");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("it can");
        tokio::spawn(async move {
            let mut buffer = vec![0; BUFFER_BYTES];
            while let Ok(count) = stream.read(&mut buffer).await {
                if count == 0 || stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn monoio_echo(address: SocketAddr) {
    use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build().expect("a runtime");
    runtime.block_on(async move {
        let listener = monoio::net::TcpListener::bind(address).expect("the port");
        println!("{address}");
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("it can");
            monoio::spawn(async move {
                let mut buffer = vec![0; BUFFER_BYTES];
                loop {
                    let (read, filled) = stream.read(buffer).await;
                    buffer = filled;
                    let Ok(count @ 1..) = read else { return };
                    buffer.truncate(count);
                    let (written, sent) = stream.write_all(buffer).await;
                    buffer = sent;
                    buffer.resize(BUFFER_BYTES, 0);
                    if written.is_err() {
                        return;
                    }
                }
            });
        }
    });
}
