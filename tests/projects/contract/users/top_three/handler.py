from ts.torch_handler.image_classifier import ImageClassifier


class TopThree(ImageClassifier):
    def initialize(self, context):
        super().initialize(context)
        self.set_max_result_classes(3)

    def postprocess(self, data):
        answers = super().postprocess(data)
        return [
            {"best": list(answer)[0], "all": answer, "k": self.get_max_result_classes()}
            for answer in answers
        ]
