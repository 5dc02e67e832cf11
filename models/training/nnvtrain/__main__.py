"""``python -m nnvtrain COMMAND``: see ``python -m nnvtrain --help``."""

import argparse


def main():
    p = argparse.ArgumentParser(
        prog="nnvtrain", description="Train, quantise and export NNV bundles.")
    sub = p.add_subparsers(dest="command", required=True)
    from . import bench, curve, export, network, pack, parity, precoded, rdcheck, rdo, train
    from .quality import export as quality_export, material, train as quality
    from .sr import export as sr_export, gan, gather, mean, pairs, rate, teach, train as sr

    def command(name, arguments, run, help):
        parser = sub.add_parser(name, help=help)
        arguments(parser)
        parser.set_defaults(run=run)

    command("key", train.key_arguments, train.key_main, "train the key-frame networks")
    command("inter", train.inter_arguments, train.inter_main,
            "train the inter-frame networks in the closed loop")
    command("precode", precoded.arguments, precoded.run,
            "put a share of the clips through other codecs ahead of training")
    command("curve", curve.arguments, curve.run, "draw the learning curve of a run as SVG")
    command("pack", pack.arguments, pack.run,
            "write training material into packs for a machine without other data")
    command("export", export.arguments, export.run, "write a bundle")
    command("bench", bench.arguments, bench.run, "measure the speed of a bundle")
    command("check", parity.arguments, parity.run, "check that a bundle is exact")
    command("sr", sr.arguments, sr.run, "train a network of super-resolution or repair")
    command("sr-gan", gan.gan_arguments, gan.run, "fine-tune one adversarially, for looks")
    command("sr-pairs", pairs.arguments, pairs.run,
            "write packs of coded and noisy pictures beside their originals")
    command("sr-teach", teach.arguments, teach.run,
            "write windows of pictures with what a teacher makes of them")
    command("sr-gather", gather.arguments, gather.run,
            "shrink photographs to pictures that are as good as never coded, none of them a test's")
    command("sr-rate", rate.arguments, rate.run,
            "fit what a bit rate says of the quality of decoded pictures")
    command("sr-export", sr_export.arguments, sr_export.run, "write a bundle of super-resolution")
    command("sr-small", sr_export.small_arguments, sr_export.small_run,
            "shrink a checkpoint to what is kept in the repository")
    command("sr-mean", mean.arguments, mean.run, "average the weights of several runs")
    command("network", network.arguments, network.run,
            "train the forecast of a network's throughput")
    command("network-check", network.check_arguments, network.check_run,
            "errors of the forecast beside simple rules, by source of the traces")
    command("network-export", network.export_arguments, network.export_run,
            "write a bundle of the forecast")
    command("quality-material", material.arguments, material.run,
            "spoil clips in known ways and measure VMAF and SSIMULACRA2: material of `quality`")
    command("quality", quality.arguments, quality.run,
            "train the network that judges decoded video without its original")
    command("quality-export", quality_export.arguments, quality_export.run,
            "write a bundle of it")
    command("rdo-material", rdo.material_arguments, rdo.material_run,
            "code clips with the encoders that people have and measure them: material of `rdo`")
    command("rdo", rdo.arguments, rdo.run,
            "train the prediction of a shot's quality over the quantizer")
    command("rdo-export", rdo.export_arguments, rdo.export_run, "write a bundle of it")
    command("rdcheck", rdcheck.arguments, rdcheck.run, "measure what exactness costs")
    args = p.parse_args()
    vars(args).pop("run")(args)  # checkpoints keep the arguments: not with a function among them


if __name__ == "__main__":
    main()
