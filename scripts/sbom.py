#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Makes a CycloneDX bill of materials of `cargo metadata` (on standard input). See sbom.sh."""

import json
import pathlib
import sys
import tomllib

ROOTS = ("gst-plugin-nnv", "nnv-tools")
BUILT_IN = (None, "build")


def reachable(metadata):
    """Ids of the packages that the roots are built of, tests left out, each with its own."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    todo, found = [i for i in nodes if names[i] in ROOTS], {}
    while todo:
        node = todo.pop()
        if node in found:
            continue
        found[node] = [
            dep["pkg"]
            for dep in nodes[node]["deps"]
            if any(kind["kind"] in BUILT_IN for kind in dep["dep_kinds"])
        ]
        todo += found[node]
    return found


def component(package, checksums):
    ref = f"pkg:cargo/{package['name']}@{package['version']}"
    made = {
        "type": "library",
        "bom-ref": ref,
        "name": package["name"],
        "version": package["version"],
        "purl": ref,
        "scope": "required",
    }
    if package.get("license"):
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("repository"):
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def bundles():
    for path in sorted(pathlib.Path("models").rglob("bundle.toml")):
        bundle = tomllib.loads(path.read_text())
        facts = bundle.get("bundle", bundle)
        name, files = facts["name"], dict(bundle.get("files", {}))
        networks = bundle.get("network", [])
        if isinstance(networks, dict):
            networks = [networks]
        files |= {n["file"]: n["sha256"] for n in networks}
        yield {
            "type": "machine-learning-model",
            "bom-ref": f"model:{name}",
            "name": name,
            "licenses": [{"expression": "MPL-2.0"}],
            "components": [
                {"type": "file", "name": file, "hashes": [{"alg": "SHA-256", "content": digest}]}
                for file, digest in sorted(files.items())
            ],
        }


def main():
    metadata = json.load(sys.stdin)
    lock = tomllib.loads(pathlib.Path("Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    found = reachable(metadata)
    components = {i: component(packages[i], checksums) for i in found}
    roots = [i for i in found if packages[i]["name"] in ROOTS]
    plugin = next(i for i in roots if packages[i]["name"] == ROOTS[0])
    ort = {
        "type": "library",
        "bom-ref": "onnxruntime",
        "name": "onnxruntime",
        "scope": "excluded",
        "licenses": [{"expression": "MIT"}],
        "description": "Loaded at run time, 1.17 or later; not built in",
    }
    others = sorted((c for i, c in components.items() if i != plugin), key=lambda c: c["bom-ref"])
    ref = {i: c["bom-ref"] for i, c in components.items()}
    json.dump(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": components[plugin]},
            "components": others + list(bundles()) + [ort],
            "dependencies": sorted(
                ({"ref": ref[i], "dependsOn": sorted({ref[d] for d in deps})}
                 for i, deps in found.items()),
                key=lambda entry: entry["ref"],
            ),
        },
        sys.stdout,
        indent=1,
    )
    print()


if __name__ == "__main__":
    main()
