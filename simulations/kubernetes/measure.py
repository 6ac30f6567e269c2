#!/usr/bin/env python3
"""What real API servers do while etcd is frozen, and when they are stopped without a shutdown delay.

The simulator's constants come from here (docs/SIMULATIONS.md). It needs Python 3, curl and openssl, takes two minutes, and is
told where the built program is: simulations/kubernetes/measure.py target/kubernetes/prismesh-kubernetes
"""

import json, os, pathlib, signal, ssl, subprocess, sys, tempfile, threading, time
import http.client, socket

PROGRAM = pathlib.Path(sys.argv[1]).resolve()
ETCD, SERVERS, PORT = "127.77.0.1", ["127.77.0.2", "127.77.0.3"], 6443
FROZEN = 25.0


def shell(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def certificate(name, *more):
    shell("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
          "-subj", name, *more)


def certificates():
    certificate("/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE", "-addext"]
    names = ",".join(f"IP:{ip}" for ip in SERVERS)
    certificate("/CN=apiserver", *signed, "extendedKeyUsage=serverAuth", "-addext", f"subjectAltName={names}",
                "-keyout", "server.key", "-out", "server.crt")
    certificate("/O=system:masters/CN=admin", *signed, "extendedKeyUsage=clientAuth", "-keyout", "admin.key", "-out", "admin.crt")


def start(*words):
    log = open(f"{words[0]}-{words[2]}.log", "w")
    return subprocess.Popen([PROGRAM, *words], stdout=log, stderr=log)


def apiserver(ip):
    return start("apiserver", "--listen", f"{ip}:{PORT}", "--etcd", f"http://{ETCD}:2379", "--tls-cert", "server.crt",
                 "--tls-key", "server.key", "--client-ca", "ca.crt", "--shutdown-delay", "0s")


def connect(ip, timeout):
    tls = ssl.create_default_context(cafile="ca.crt")
    tls.load_cert_chain("admin.crt", "admin.key")
    return http.client.HTTPSConnection(ip, PORT, context=tls, timeout=timeout)


def get(ip, path, timeout=70.0, over=None, method="GET", body=None):
    """Status (or what failed) and seconds."""
    begun = time.monotonic()
    try:
        connection = over or connect(ip, timeout)
        connection.request(method, path, body=body, headers={"Content-Type": "application/yaml"} if body else {})
        answer = connection.getresponse()
        answer.read()
        told = answer.status
    except Exception as error:  # whatever it is, it is told
        told = type(error).__name__
    return told, time.monotonic() - begun


def until(what, limit=60.0):
    begun = time.monotonic()
    while time.monotonic() - begun < limit:
        if what():
            return time.monotonic() - begun
        time.sleep(0.05)
    return float("nan")


def watch(ip, note, limit=100):
    """A quiet watch over HTTP/2: how it ends, and what was said meanwhile."""
    url = f"https://{ip}:{PORT}{WIDGETS}?watch=1"
    begun = time.monotonic()
    done = subprocess.run(["curl", "-sSNv", "--http2", "-m", str(limit), "--cacert", "ca.crt", "--cert", "admin.crt",
                           "--key", "admin.key", url], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = [line for line in done.stderr.splitlines() if "GOAWAY" in line.upper() or line.startswith("curl:")]
    note.append((done.returncode, time.monotonic() - begun, lines))


WIDGETS = "/apis/demo.prismesh.dev/v1/widgets"


def spread(times):
    times = sorted(times)
    at = lambda share: times[min(len(times) - 1, int(share * len(times)))]
    return f"{len(times)} answers: least {times[0]:.2f}, median {at(0.5):.2f}, 90% {at(0.9):.2f}, most {times[-1]:.2f} s"


def frozen(etcd):
    print(f"== etcd is stopped (SIGSTOP) for {FROZEN:.0f} s")
    usual = [get(ip, "/readyz")[1] for ip in SERVERS for _ in range(20)]
    print(f"/readyz before: {spread(usual)}")
    ended, answers, requests, lock = [], [], [], threading.Lock()
    threads = [threading.Thread(target=watch, args=(SERVERS[0], ended, FROZEN + 20))]
    threads[0].start()
    time.sleep(1.0)
    os.kill(etcd.pid, signal.SIGSTOP)
    begun = time.monotonic()

    def probe(ip):
        while time.monotonic() - begun < FROZEN:
            sent = time.monotonic() - begun
            told, took = get(ip, "/readyz", 20.0)
            with lock:
                answers.append((sent, told, took))
            time.sleep(0.5)

    def ask(ip, after):
        time.sleep(after)
        told = get(ip, WIDGETS, 70.0) if after < 5 else get(ip, WIDGETS + "?resourceVersion=0", 70.0)
        with lock:
            requests.append((ip, after, *told, time.monotonic() - begun))

    threads += [threading.Thread(target=probe, args=(ip,)) for ip in SERVERS for _ in range(3)]
    threads += [threading.Thread(target=ask, args=(ip, after)) for ip in SERVERS for after in (1.0, 6.0)]
    for thread in threads[1:]:
        thread.start()
    time.sleep(FROZEN)
    os.kill(etcd.pid, signal.SIGCONT)
    again = until(lambda: get(SERVERS[0], "/readyz", 5.0)[0] == 200)
    for thread in threads:
        thread.join()
    codes = sorted({str(told) for _, told, _ in answers})
    for code in codes:
        print(f"/readyz meanwhile, {code}: {spread([took for _, told, took in answers if str(told) == code])}")
    print(f"/readyz is 200 again {again:.2f} s after etcd goes on")
    for ip, after, told, took, at in sorted(requests):
        print(f"{'a list of etcd' if after < 5 else 'a list of the cache'} at {ip}, asked after {after:.0f} s: {told} after {took:.1f} s")
    print(f"a quiet watch over all this: curl exit {ended[0][0]} after {ended[0][1]:.1f} s, {ended[0][2]} (28: its own time limit)")


def stopped(process, ip):
    print("== SIGTERM, shutdown delay 0")
    ended = []
    watching = threading.Thread(target=watch, args=(ip, ended))
    watching.start()
    kept = connect(ip, 5.0)
    print(f"a kept connection before: {get(ip, '/readyz', over=kept)[0]}")
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()

    def refused():
        try:
            socket.create_connection((ip, PORT), 1.0).close()
            return False
        except ConnectionRefusedError:
            return True

    print(f"the port refuses after {until(refused):.2f} s")
    for wait in (0.0, 2.0, 10.0):
        time.sleep(wait)
        told, took = get(ip, WIDGETS, over=kept)
        print(f"a request on the kept connection {time.monotonic() - begun:.1f} s after SIGTERM: {told} after {took:.2f} s")
    watching.join()
    print(f"the watch ended {ended[0][1] - 1.0:.1f} s after SIGTERM: curl exit {ended[0][0]}, {ended[0][2]}")
    process.wait()
    print(f"the process ended {time.monotonic() - begun:.1f} s after SIGTERM, with {process.returncode}")


def main():
    here = pathlib.Path(__file__).resolve().parent
    children = []
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        certificates()
        try:
            children.append(start("etcd", "--listen", f"{ETCD}:2379", "--dir", "data"))
            time.sleep(2.0)
            children += [apiserver(ip) for ip in SERVERS]
            for ip in SERVERS:
                until(lambda: get(ip, "/readyz", 5.0)[0] == 200)
            widget = (here / "widget.yaml").read_bytes()
            get(SERVERS[0], "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", method="POST", body=widget)
            for ip in SERVERS:
                until(lambda: get(ip, WIDGETS, 5.0)[0] == 200)
            frozen(children[0])
            stopped(children[1], SERVERS[0])
        finally:
            for child in children:
                child.kill()


main()
